"""Measuring: speed beside other runtimes, instructions on microcontrollers."""

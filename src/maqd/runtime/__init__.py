"""Engines that run a graph."""

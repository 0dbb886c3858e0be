"""Bytes in and out: files and images."""

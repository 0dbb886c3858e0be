"""Graphs in other formats. What cannot be expressed exactly is refused with an `ExportError`."""

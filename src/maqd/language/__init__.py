"""Language models without PyTorch: their values, their file, their arithmetic in NumPy, and how text is drawn."""

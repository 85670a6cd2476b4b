"""Model directories and other models: load, save, export, and what a user changes of a decoder."""

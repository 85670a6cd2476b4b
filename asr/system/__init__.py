"""What any module may use: files, signals, progress, compiled loops."""

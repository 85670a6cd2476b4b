"""Audio in: reading files, cutting long recordings, log-mel features, augmentation."""

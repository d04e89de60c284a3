"""What a run writes while the trainer works."""

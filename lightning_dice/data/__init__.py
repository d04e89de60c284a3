"""From files on disk to patches on the device."""

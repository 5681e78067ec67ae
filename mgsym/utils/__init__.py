"""What every package uses: files written whole, settings, seeds, devices, names."""

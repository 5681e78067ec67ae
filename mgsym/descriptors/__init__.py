"""What models know of an atom beside edges: densities, power spectra, physical inputs."""

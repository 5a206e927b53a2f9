"""What a bundle is: manifest, files, graphs, weights, and the replay of its reference values."""

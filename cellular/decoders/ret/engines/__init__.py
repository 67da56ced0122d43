"""Ways to run the decoder on a CPU: the same texts, at different speeds."""

"""Turn embeddings back into text: teachers, phrase banks and decoders."""

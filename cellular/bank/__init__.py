"""Phrase banks: phrases, their embeddings, and the index that searches them."""

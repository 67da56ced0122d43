"""Decoders: from an embedding to text."""

"""Stateful workers as plain classes: Ray Data calls them, Ray Serve deploys them."""

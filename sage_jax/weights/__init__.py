"""Weights of a trained model to publish: written from any run, read without orbax."""

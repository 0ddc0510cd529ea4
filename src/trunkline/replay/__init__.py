"""Replay: a file of chat driven through real clients, and the proof that everyone holds it all."""

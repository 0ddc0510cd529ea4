"""The wire: frames as typed structs, their two encodings, close codes."""

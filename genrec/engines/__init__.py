"""What runs the language model: one protocol, several ways."""

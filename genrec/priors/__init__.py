"""The untrained voices: what everybody does, what this person does."""

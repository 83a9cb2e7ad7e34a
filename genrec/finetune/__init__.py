"""Teaching the language model what these people choose, on top of what the untrained voices know."""

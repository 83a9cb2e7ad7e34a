"""Items, their short unique texts, and the token trie over them.

An item's text is its identifier towards the language model: short, unique, assigned once and stored, closed by a
separator that no text contains. Knows nothing of people.
"""

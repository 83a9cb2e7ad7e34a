"""Pictures, sounds and texts of items, read once and kept as words and vectors.

`base` is the contract of a reader, `reading` the run over a store, `pictures` opens pictures. The readers are `text`,
`ocr` and those of `models`, which need a model that transformers can load.
"""

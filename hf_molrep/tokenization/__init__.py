"""
Rules and training code of the tokenizers that stand, as plain `tokenizer.json` files, in `tokenizers/`.

Using a tokenizer needs nothing from here: stock `AutoTokenizer.from_pretrained("tokenizers/smiles_bpe")` loads it.
"""

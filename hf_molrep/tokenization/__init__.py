"""
Rules and training code of the tokenizers that are stored as `tokenizer.json` files in `tokenizers/`.

Using a tokenizer needs nothing from here: `AutoTokenizer.from_pretrained("tokenizers/smiles_bpe")` loads it.
"""

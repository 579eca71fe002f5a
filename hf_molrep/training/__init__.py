"""A model from molecules: pre-training and fine-tuning."""

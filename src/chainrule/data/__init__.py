"""From text files to batches: documents, split, tokenizer, windows, their order, and the bigram baseline."""

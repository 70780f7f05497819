"""Word2Vec's fast inner loop: numba kernels whose update is the gradient of `models/word2vec.py`, and their proof."""

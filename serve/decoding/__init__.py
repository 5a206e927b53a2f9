"""Generation over token ids: settings, the choice of tokens, caches and the engine over them."""

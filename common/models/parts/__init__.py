"""Pre-trained parts that packages carry in other forms, converted once into the cache."""

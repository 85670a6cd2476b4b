"""Letters to phones: pronunciations of any word, learnt from a pronouncing dictionary."""

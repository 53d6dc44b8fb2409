"""Names of weights, dialect by dialect: from those of a file to the official ones."""

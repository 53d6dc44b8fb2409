"""What of a clip speaks for a class, and where a token looks: `vswin explain`."""

"""Files of weights, format by format: from bytes to named arrays, without running anything in them."""

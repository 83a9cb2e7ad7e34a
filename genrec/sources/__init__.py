"""Where data comes from: the connector contract and the file source."""

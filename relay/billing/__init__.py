"""Prices, the ledger, redemption codes and notices about money."""

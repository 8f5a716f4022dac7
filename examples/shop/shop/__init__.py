"""A small shop: users, products, orders and payments over HTTP."""

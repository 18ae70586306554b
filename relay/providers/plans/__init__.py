"""Subscriptions of people at vendors, such as ChatGPT plans: how one signs in, and what is asked of them. No Django."""

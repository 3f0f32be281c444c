"""What leaves this machine for the Hub, and what comes from there."""

"""What may be wrong with a cluster: facts that each machine gathers about itself, and what they mean."""

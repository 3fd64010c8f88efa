"""Files written whole or not at all, bounded reads, and amounts as people read them."""

"""Whether laws are true and what follows from them: verification, TASO's rules, hand rewrites, random terms."""

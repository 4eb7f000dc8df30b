"""Running programs that nobody trusts: limits, isolation, and a judge they cannot reach.

All of it runs in processes of its own and imports the standard library only.
`docs/code_verifier.md` draws the processes and says what each may see.
"""

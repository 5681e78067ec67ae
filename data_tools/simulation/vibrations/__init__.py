"""What the potential says of an atom near rest: Hessian, compliance, cage."""

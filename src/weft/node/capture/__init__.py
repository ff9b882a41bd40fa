"""How an application's traffic comes to its sidecar: by nft rules, by seccomp, or by proxy variables."""

"""What differs between the networks that denoise: U-Nets and transformers, each family seen through an adapter."""

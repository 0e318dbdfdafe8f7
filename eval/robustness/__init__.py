"""What codes make of damaged scans: do they keep the damage, clean it, or make it worse?"""

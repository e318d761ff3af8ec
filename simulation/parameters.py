"""The numbers and names that a made-up shop is drawn from; docs/simulate.md says what each of them does."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NEVER = 2**31 - 1  # a day that does not come
DAY = 86_400_000_000  # microseconds

# Moods. Engaged customers cool, cooling ones leave; nobody comes back.
ENGAGED, COOLING, GONE, ABSENT = range(4)
PACE = np.array([1.0, 0.2, 0.0, 0.0])  # of purchasing, by mood
BROWSING = (1.0, 0.5, 0.2)  # of browsing: engaged, cooling, gone
OPENING = (0.25, 0.18, 0.10)  # share of e-mails opened: engaged, cooling, gone

PURCHASE_RATE, PURCHASE_SHAPE = 14 / 365, 0.8  # per day while engaged; gamma shape of its spread
COOLING_RATE, COOLING_SHAPE = 0.35 / 365, 0.8
LEAVING_NIGHT = 1 / 200  # probability per night, once cooling
REGULAR_SHARE, REGULAR_STEPS = 0.35, 3  # regular buyers take three steps to a purchase, the others one
EXISTING_SHARE, FIRST_ORDER_SHARE = 0.40, 0.85  # signed up before the records begin; of the others, order on sign-up

OUTCOMES = ("fine", "failed, silent", "failed, resolved", "failed, resolved late", "failed, unresolved")
FINE, SILENT, RESOLVED, LATE, UNRESOLVED = range(5)
FAILED_SHARES = np.array([0.35, 0.30, 0.20, 0.15])  # of the four ways to fail
LEAVE = np.array([0.002, 0.20, 0.06, 0.35, 0.60])  # probability that an order so ended was the last

CONTACT_EVERY, CONTACT_DAYS, NEWSLETTER_EVERY = 45, 28, 60  # days; contacts never overlap
CONTACTED_SHARE, CONTROL_SHARE = 0.20, 0.05  # of the customers who may be contacted
COUPON_SHARE, COUPON = 0.35, 0.10  # of the orders under a contact, and what it takes off
DISCOUNTS, DISCOUNT_SHARES = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.3, 0.2])
RETURN_AFTER_FAILURE, RETURN_FIRST, RETURN_LAST = 0.5, 3, 30  # a line comes back 3..30 days after, each as likely
FAVOURITE_SHARE, COMPANION_SHARE = 0.35, 0.45  # of lines; of the lines after a basket's first
DIRTY_SHARE = 0.0005  # of rows, for each kind of dirt

CATEGORIES = ("bakery", "books", "clothing", "coffee", "garden", "gifts", "health", "kitchen", "pets", "sports", "tea",
              "toys")  # fmt: skip
PRODUCTS_PER_CATEGORY = (30, 60, 48, 24, 32, 40, 34, 36, 20, 28, 18, 30)
CATEGORY_PRICES = (5, 11, 28, 9, 18, 14, 12, 22, 10, 30, 8, 16)
BRANDS = ("Alder", "Birch", "Cedar", "Fern", "Hazel", "Linden", "Maple", "Rowan")
WEEK = np.array([0.85, 0.85, 0.9, 1.0, 1.2, 1.35, 0.85])  # Monday first
# share of a day's moments by the end of each hour
HOURS = np.array([0, 0, 0, 0, 0, 0, 1, 2, 4, 6, 7, 7, 8, 7, 6, 6, 7, 8, 9, 10, 9, 6, 3, 1]).cumsum() / 107

REGIONS = ("North", "South", "East", "West", "Islands")
REGION_SHARES = np.array([0.25, 0.30, 0.20, 0.18, 0.07])
REGION_RATE = np.array([0.0, 0.15, -0.1, 0.05, -0.35])  # on the log purchase rate
REGION_FAILURE = np.array([0.8, 0.7, 1.0, 1.1, 3.0])  # times the failure probability
CITIES = ("Northam", "Southbridge", "Eastley", "Westport", "Islay")
ACQUISITIONS = ("search", "referral", "social", "store", "paid_ads", "marketplace")
ACQUISITION_SHARES = np.array([0.28, 0.15, 0.17, 0.14, 0.16, 0.10])
ACQUISITION_RATE = np.array([0.0, 0.25, -0.1, 0.1, -0.25, -0.15])  # on the log purchase rate
ACQUISITION_COOLING = np.array([0.0, -0.6, 0.3, -0.3, 0.7, 0.5])  # on the log cooling rate
STORE = ACQUISITIONS.index("store")
CHANNELS = ("web", "app", "store", "email", "phone", "post")
WEB, APP, IN_STORE, EMAIL, PHONE, POST = range(6)
FIRST_NAMES = ("Ada", "Ben", "Chloe", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mara",
               "Nils", "Olga", "Priya", "Quinn", "Rosa", "Sven", "Zoë")  # fmt: skip
LAST_NAMES = ("Adeyemi", "Brown", "Costa", "Dubois", "Evans", "Fischer", "García", "Haddad", "Ito", "Jansen", "Kaya",
              "Larsen", "Moreau", "Novak", "O'Neill", "Patel", "Rossi", "Smith", "Tanaka", "Wang")  # fmt: skip
MEDIA = (EMAIL, POST, PHONE)  # of the campaigns, in turn

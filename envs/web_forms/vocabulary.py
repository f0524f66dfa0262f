"""The words from which sites and tasks are drawn."""

from __future__ import annotations

from collections.abc import Mapping

FIRST_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo", "Mia", "Noah")
LAST_NAMES = ("Berg", "Cole", "Diaz", "Ford", "Hale", "Jung", "Kaya", "Lind", "Moss", "Park", "Reid", "Shaw")
CITIES = ("Bergen", "Cairo", "Dublin", "Geneva", "Lima", "Osaka", "Oslo", "Porto", "Quito", "Riga", "Seville", "Turin")
STREETS = ("Elm", "Hill", "Lake", "Mill", "Oak", "Park", "River", "School")

TEXT_LABELS = ("Name", "City", "Email", "Phone", "Street")
LISTS: Mapping[str, tuple[str, ...]] = {
    "Country": ("Chile", "Egypt", "Japan", "Norway", "Peru", "Spain"),
    "Size": ("Small", "Medium", "Large"),
    "Colour": ("Black", "Blue", "Green", "Red", "White"),
    "Delivery": ("Post", "Courier", "Pick-up"),
    "Language": ("Arabic", "English", "French", "Korean", "Spanish"),
}
BOXES = ("Newsletter", "Gift wrap", "Insurance", "Receipt", "Express", "Reminder")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "Payment": ("Card", "Cash", "Invoice"),
    "Contact": ("Call", "Letter", "Text message"),
    "Seat": ("Aisle", "Middle", "Window"),
    "Meal": ("Fish", "Meat", "Vegan"),
}
SEND_LABELS = ("Send", "Submit", "Save", "Confirm")

FORM_TITLES = ("Booking", "Contact", "Order", "Registration", "Survey")
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Garden": ("rake", "spade", "watering can", "bench", "hose"),
    "Kitchen": ("kettle", "pan", "toaster", "mug", "grater"),
    "Office": ("stapler", "desk lamp", "notebook", "chair", "printer"),
    "Sports": ("football", "skipping rope", "tent", "helmet", "racket"),
    "Toys": ("puzzle", "kite", "train set", "doll", "marbles"),
}
SHOP_BUTTONS = ("Add to basket", "Add to wish list", "Compare")
PASSWORDS = ("maple7", "tiger42", "violet9", "comet3", "anchor8", "pepper5", "rocket6", "willow2")

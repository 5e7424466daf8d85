"""Cities and their countries, and sentences with a mood: statements whose label is known.

Written for this from general knowledge; one city a country, so that no country stands twice.
"""

CITIES = (
    ("Paris", "France"), ("London", "England"), ("Berlin", "Germany"), ("Madrid", "Spain"),
    ("Rome", "Italy"), ("Lisbon", "Portugal"), ("Vienna", "Austria"), ("Brussels", "Belgium"),
    ("Amsterdam", "the Netherlands"), ("Copenhagen", "Denmark"), ("Stockholm", "Sweden"),
    ("Oslo", "Norway"), ("Helsinki", "Finland"), ("Warsaw", "Poland"), ("Prague", "Czechia"),
    ("Budapest", "Hungary"), ("Bucharest", "Romania"), ("Sofia", "Bulgaria"),
    ("Athens", "Greece"), ("Dublin", "Ireland"), ("Moscow", "Russia"), ("Kyiv", "Ukraine"),
    ("Belgrade", "Serbia"), ("Zagreb", "Croatia"), ("Zurich", "Switzerland"),
    ("Istanbul", "Turkey"), ("Cairo", "Egypt"), ("Casablanca", "Morocco"), ("Tunis", "Tunisia"),
    ("Algiers", "Algeria"), ("Tripoli", "Libya"), ("Khartoum", "Sudan"),
    ("Addis Ababa", "Ethiopia"), ("Nairobi", "Kenya"), ("Kampala", "Uganda"),
    ("Lagos", "Nigeria"), ("Accra", "Ghana"), ("Dakar", "Senegal"), ("Luanda", "Angola"),
    ("Johannesburg", "South Africa"), ("Harare", "Zimbabwe"), ("Lusaka", "Zambia"),
    ("Maputo", "Mozambique"), ("Mogadishu", "Somalia"), ("Tehran", "Iran"), ("Baghdad", "Iraq"),
    ("Damascus", "Syria"), ("Beirut", "Lebanon"), ("Amman", "Jordan"), ("Tel Aviv", "Israel"),
    ("Riyadh", "Saudi Arabia"), ("Dubai", "the United Arab Emirates"), ("Doha", "Qatar"),
    ("Kabul", "Afghanistan"), ("Karachi", "Pakistan"), ("Mumbai", "India"),
    ("Dhaka", "Bangladesh"), ("Kathmandu", "Nepal"), ("Colombo", "Sri Lanka"),
    ("Bangkok", "Thailand"), ("Hanoi", "Vietnam"), ("Manila", "the Philippines"),
    ("Jakarta", "Indonesia"), ("Kuala Lumpur", "Malaysia"), ("Beijing", "China"),
    ("Tokyo", "Japan"), ("Seoul", "South Korea"), ("Pyongyang", "North Korea"),
    ("Taipei", "Taiwan"), ("Ulaanbaatar", "Mongolia"), ("Tashkent", "Uzbekistan"),
    ("Almaty", "Kazakhstan"), ("Baku", "Azerbaijan"), ("Tbilisi", "Georgia"),
    ("Yerevan", "Armenia"), ("Sydney", "Australia"), ("Auckland", "New Zealand"),
    ("Toronto", "Canada"), ("Chicago", "the United States"), ("Monterrey", "Mexico"),
    ("Havana", "Cuba"), ("Kingston", "Jamaica"), ("Tegucigalpa", "Honduras"),
    ("Managua", "Nicaragua"), ("Bogotá", "Colombia"), ("Caracas", "Venezuela"),
    ("Quito", "Ecuador"), ("Lima", "Peru"), ("La Paz", "Bolivia"), ("Santiago", "Chile"),
    ("Buenos Aires", "Argentina"), ("Montevideo", "Uruguay"), ("Asunción", "Paraguay"),
    ("São Paulo", "Brazil"), ("Riga", "Latvia"), ("Vilnius", "Lithuania"),
    ("Tallinn", "Estonia"), ("Reykjavik", "Iceland"), ("Minsk", "Belarus"), ("Tirana", "Albania"),
)  # fmt: skip
"""A hundred cities and the country of each."""

PRAISE = (
    "wonderful", "brilliant", "delightful", "superb", "charming", "excellent", "fantastic",
    "moving", "gripping", "hilarious", "beautiful", "splendid", "thrilling", "touching", "clever",
    "refreshing", "inspiring", "enjoyable", "masterful", "lovely", "magnificent", "perfect",
    "joyful", "outstanding", "elegant", "witty", "heartwarming", "amazing", "graceful", "stunning",
)  # fmt: skip
BLAME = (
    "terrible", "dreadful", "boring", "awful", "dull", "horrible", "clumsy", "tedious", "painful",
    "lifeless", "ugly", "pathetic", "annoying", "shallow", "stupid", "tiresome", "depressing",
    "miserable", "sloppy", "hateful", "disgusting", "worthless", "gloomy", "disappointing",
    "incoherent", "lazy", "unbearable", "appalling", "awkward", "ridiculous",
)  # fmt: skip
"""Thirty words of each mood."""

"""What the energy advisor reads and says, in both languages; the names in braces are fields of a reading.

Each action has one short sentence, by which an answer is recognised, and several reasons that name the numbers that decided.
"""

TEXTS = {
    "id": {
        "system": "Kamu penasihat listrik rumah. Sebutkan satu tindakan dan alasannya.",
        "reading": "Jam {hour} ({tariff}), {people} orang di rumah. Luar {outdoor_c} °C, dalam {indoor_c} °C. {ac}, kulkas {fridge_w} W, "
                   "pompa {pump_min} menit, cuci dan setrika {chores_w} W, siaga {idle_w} W, surya {solar_w} W. Total {total_w} W dari {limit_w} W.",
        "ac_on": "AC {ac_w} W pada {ac_set_c} °C", "ac_off": "AC mati", "peak": "beban puncak", "off_peak": "di luar puncak",
        "actions": {
            "reduce_load": "Kurangi beban.", "turn_off_ac": "Matikan AC.", "check_pump": "Periksa pompa air.", "check_fridge": "Periksa kulkas.",
            "open_windows": "Buka jendela.", "raise_set_point": "Naikkan suhu AC.", "shift_chores": "Tunda cuci dan setrika.",
            "use_solar": "Manfaatkan listrik surya.", "cut_standby": "Cabut alat siaga.", "carry_on": "Tidak perlu apa-apa.",
        },
        "reasons": {
            "reduce_load": (
                "Pemakaian {total_w} W sudah dekat dengan batas {limit_w} W, listrik bisa turun.",
                "Dari {limit_w} W sudah terpakai {total_w} W. Jangan nyalakan alat besar lain dulu.",
                "Beban {total_w} W hampir menghabiskan daya {limit_w} W. Pakai alat besar bergantian.",
                "Sisa daya tinggal sedikit: {total_w} W dari {limit_w} W. Matikan satu alat pemanas.",
                "Satu alat lagi dan sekring turun, karena {total_w} W dari {limit_w} W sudah terpakai."),
            "turn_off_ac": (
                "AC memakai {ac_w} W, padahal ada {people} orang di rumah.",
                "Di rumah ada {people} orang, jadi {ac_w} W untuk AC terbuang percuma.",
                "Rumah kosong ({people} orang), tetapi AC masih menyala dengan {ac_w} W.",
                "Tidak ada yang menikmati AC {ac_w} W ini: {people} orang di rumah.",
                "Dengan {people} orang di rumah, pendingin {ac_w} W tidak berguna."),
            "check_pump": (
                "Pompa bekerja {pump_min} menit dalam satu jam, mungkin ada pipa bocor.",
                "{pump_min} menit per jam terlalu lama untuk {people} orang. Cari keran atau pipa yang bocor.",
                "Pompa menyala {pump_min} menit; untuk {people} orang itu tidak wajar. Lihat pelampung tandonnya.",
                "Air mengalir entah ke mana: pompa {pump_min} menit dalam sejam.",
                "Selama {pump_min} menit pompa tidak berhenti. Tutup semua keran dan lihat apakah pompa masih menyala."),
            "check_fridge": (
                "Kulkas rata-rata {fridge_w} W, terlalu tinggi. Karet pintunya mungkin aus.",
                "Daya {fridge_w} W berarti kulkas tidak pernah beristirahat. Pastikan pintunya rapat.",
                "Kulkas menarik {fridge_w} W. Bersihkan bunga es dan beri jarak dari dinding.",
                "Angka {fridge_w} W tidak wajar untuk kulkas. Selipkan kertas di pintu: kalau mudah ditarik, karetnya aus.",
                "Kulkas bekerja terus dengan {fridge_w} W. Jangan-jangan pintunya tidak menutup."),
            "open_windows": (
                "Udara luar {outdoor_c} °C lebih sejuk daripada di dalam, {indoor_c} °C. AC {ac_w} W tidak diperlukan.",
                "Di luar {outdoor_c} °C, di dalam {indoor_c} °C: angin gratis bisa menggantikan AC {ac_w} W.",
                "AC {ac_w} W bisa dimatikan, sebab di luar {outdoor_c} °C dan di dalam {indoor_c} °C.",
                "Biarkan udara {outdoor_c} °C masuk ke ruangan {indoor_c} °C dan hemat {ac_w} W.",
                "Dengan {outdoor_c} °C di luar, ruangan {indoor_c} °C bisa sejuk tanpa AC {ac_w} W."),
            "raise_set_point": (
                "Setelan {ac_set_c} °C terlalu dingin dan membuat AC memakai {ac_w} W.",
                "AC disetel {ac_set_c} °C dan menghabiskan {ac_w} W. Beberapa derajat lebih hangat sudah nyaman.",
                "Pada {ac_set_c} °C, AC menarik {ac_w} W. Suhu yang lebih tinggi tetap nyaman.",
                "Tidak perlu sedingin {ac_set_c} °C. Dari {ac_w} W sebagian bisa dihemat.",
                "{ac_set_c} °C lebih rendah daripada yang kita perlukan; {ac_w} W bisa turun."),
            "shift_chores": (
                "Sekarang jam {hour}, tarif puncak. Beban {chores_w} W bisa menunggu.",
                "Cucian dan setrika {chores_w} W lebih murah di luar beban puncak; sekarang jam {hour}.",
                "Jam {hour} termasuk beban puncak, jadi {chores_w} W ini paling mahal.",
                "Pekerjaan {chores_w} W ini tidak mendesak, dan jam {hour} masih beban puncak.",
                "Pindahkan {chores_w} W itu ke pagi hari; jam {hour} listrik sedang mahal."),
            "use_solar": (
                "Panel memberi {solar_w} W, rumah hanya memakai {total_w} W. Nyalakan mesin cuci sekarang.",
                "Dari {solar_w} W surya baru {total_w} W yang terpakai. Saat yang baik untuk menyetrika.",
                "Ada {solar_w} W dari atap dan pemakaian {total_w} W. Isi tandon air dengan sisanya.",
                "Sisa listrik surya terbuang: {solar_w} W masuk, {total_w} W terpakai. Masaklah nasi sekarang.",
                "Panel {solar_w} W mengalahkan pemakaian {total_w} W. Isi daya semua baterai."),
            "cut_standby": (
                "Alat yang tidak dipakai menyedot {idle_w} W.",
                "Beban siaga {idle_w} W mengalir siang malam. Pakai stopkontak bersakelar.",
                "{idle_w} W hilang untuk alat yang hanya menunggu. Mulai dari televisi dan dispenser.",
                "Siaga {idle_w} W terlalu tinggi. Cari pengisi daya dan dekoder yang tetap hangat.",
                "Tanpa dipakai pun ada {idle_w} W yang mengalir."),
            "carry_on": (
                "Pemakaian {total_w} W dari {limit_w} W wajar untuk jam {hour}.",
                "Semua normal: {total_w} W, kulkas {fridge_w} W, siaga {idle_w} W.",
                "Dengan {total_w} W dari {limit_w} W tidak ada yang boros.",
                "Kulkas {fridge_w} W dan siaga {idle_w} W sudah baik.",
                "Jam {hour} ini pemakaian {total_w} W, tidak ada yang aneh."),
        },
    },
    "en": {
        "system": "You advise a household on electricity. Name one action and its reason.",
        "reading": "Hour {hour} ({tariff}), {people} at home. Outside {outdoor_c} °C, inside {indoor_c} °C. {ac}, fridge {fridge_w} W, "
                   "pump {pump_min} minutes, washing and ironing {chores_w} W, standby {idle_w} W, solar {solar_w} W. Total {total_w} W of {limit_w} W.",
        "ac_on": "AC {ac_w} W at {ac_set_c} °C", "ac_off": "AC off", "peak": "peak tariff", "off_peak": "off peak",
        "actions": {
            "reduce_load": "Reduce the load.", "turn_off_ac": "Turn off the AC.", "check_pump": "Check the water pump.", "check_fridge": "Check the fridge.",
            "open_windows": "Open the windows.", "raise_set_point": "Raise the AC's set point.", "shift_chores": "Put off washing and ironing.",
            "use_solar": "Use the solar power.", "cut_standby": "Unplug what stands by.", "carry_on": "Nothing to do.",
        },
        "reasons": {
            "reduce_load": (
                "The home draws {total_w} W, close to its limit of {limit_w} W, and the breaker may trip.",
                "Of {limit_w} W, {total_w} W are in use. Start no other large appliance yet.",
                "A load of {total_w} W nearly uses up the {limit_w} W. Run large appliances one after another.",
                "Little is left: {total_w} W of {limit_w} W. Turn off one thing that heats.",
                "One more appliance and the breaker trips, since {total_w} W of {limit_w} W are taken."),
            "turn_off_ac": (
                "It takes {ac_w} W, and there are {people} people at home.",
                "With {people} people at home, {ac_w} W of cooling are wasted.",
                "The house is empty ({people} people), yet the AC runs at {ac_w} W.",
                "Nobody enjoys these {ac_w} W of cooling: {people} people at home.",
                "Cooling at {ac_w} W serves no one while {people} people are at home."),
            "check_pump": (
                "It ran {pump_min} minutes within an hour, so a pipe may leak.",
                "{pump_min} minutes an hour is too long for {people} at home. Look for a dripping tap or pipe.",
                "The pump was on for {pump_min} minutes, which is odd for {people} at home. Look at the tank's float.",
                "Water goes somewhere: {pump_min} minutes of pumping in an hour.",
                "For {pump_min} minutes the pump did not rest. Close all taps and see whether it still runs."),
            "check_fridge": (
                "Its mean of {fridge_w} W is too high. The door seal may be worn.",
                "At {fridge_w} W it never rests. Make sure that the door shuts tight.",
                "The fridge draws {fridge_w} W. Remove the ice and move it away from the wall.",
                "{fridge_w} W is not normal for a fridge. Put a sheet of paper in the door: if it slides out, the seal is worn.",
                "It keeps running at {fridge_w} W. Perhaps the door does not close."),
            "open_windows": (
                "Outside it is {outdoor_c} °C, cooler than {indoor_c} °C inside. The AC's {ac_w} W are not needed.",
                "With {outdoor_c} °C outside and {indoor_c} °C inside, free air can replace {ac_w} W of AC.",
                "The AC's {ac_w} W can go, since it is {outdoor_c} °C outside and {indoor_c} °C inside.",
                "Let air of {outdoor_c} °C into a room of {indoor_c} °C and save {ac_w} W.",
                "At {outdoor_c} °C outside, a room of {indoor_c} °C cools down without {ac_w} W of AC."),
            "raise_set_point": (
                "A setting of {ac_set_c} °C is too cold and costs {ac_w} W.",
                "The AC is set to {ac_set_c} °C and takes {ac_w} W. A few degrees more are still pleasant.",
                "At {ac_set_c} °C the AC draws {ac_w} W. A higher temperature is pleasant, too.",
                "It need not be as cold as {ac_set_c} °C. Part of the {ac_w} W can be saved.",
                "{ac_set_c} °C is lower than anyone needs; {ac_w} W can come down."),
            "shift_chores": (
                "At hour {hour} the peak tariff applies. These {chores_w} W can wait.",
                "Washing and ironing at {chores_w} W are cheaper off peak; now it is hour {hour}.",
                "Hour {hour} is peak time, when {chores_w} W cost most.",
                "This work of {chores_w} W is not urgent, and hour {hour} is still peak time.",
                "Move the {chores_w} W to the morning; at hour {hour} power is dear."),
            "use_solar": (
                "The panels give {solar_w} W and the home takes only {total_w} W. Start the washing machine now.",
                "Of {solar_w} W of sun only {total_w} W are used. A good moment for ironing.",
                "There are {solar_w} W from the roof and {total_w} W in use. Fill the water tank with the rest.",
                "Sunshine is being lost: {solar_w} W come in, {total_w} W are used. Cook the rice now.",
                "{solar_w} W from the panels exceed the {total_w} W in use. Charge every battery."),
            "cut_standby": (
                "Appliances that nobody uses draw {idle_w} W.",
                "Standby of {idle_w} W flows day and night. Use a socket strip with a switch.",
                "{idle_w} W are lost on things that only wait. Begin with the television and the dispenser.",
                "Standby of {idle_w} W is too high. Look for chargers and boxes that stay warm.",
                "Even unused, {idle_w} W keep flowing."),
            "carry_on": (
                "{total_w} W of {limit_w} W is ordinary for hour {hour}.",
                "All is normal: {total_w} W, the fridge {fridge_w} W, standby {idle_w} W.",
                "With {total_w} W of {limit_w} W nothing is wasteful.",
                "The fridge at {fridge_w} W and standby at {idle_w} W are fine.",
                "At hour {hour} the home draws {total_w} W, nothing unusual."),
        },
    },
}

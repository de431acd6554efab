touch index.txt
for name in ca server; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr -subj "/CN=lth test $name" 2>/dev/null
done
dates="-startdate 20200101000000Z -enddate 21200101000000Z"
openssl ca -batch -notext -config ca.cnf -selfsign -keyfile ca.key -in ca.csr -out ca.pem -extensions authority $dates
openssl ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in server.csr -out server.pem -extensions server $dates
